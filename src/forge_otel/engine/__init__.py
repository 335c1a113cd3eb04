"""What every observed call goes through. It knows no component: the instrumentors describe these."""
