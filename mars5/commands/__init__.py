"""What the commands of `mars5.cli` do, one module for each."""
