"""The path of every observed call. It knows no component: the instrumentors describe these."""
