"""What the commands of `mars5.cli` share, and most of them, one module for each."""
