"""Ways of adapting a frozen backbone."""
