"""Tests of the stack in real containers, with the files of this project and images built here."""
