"""What processes of several slices write and read, a module for each; leaves all of them."""
