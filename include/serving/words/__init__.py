"""What a model server writes and other processes read, a module for each; nothing here imports the server."""
