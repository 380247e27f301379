"""The `mm` command. Each module holds the commands of one subject; heavy imports happen inside them."""
