"""What is tested here runs the real programs, with the configurations in `collector-config/`, on loopback."""
