"""The apps that we publish to Spaces (they import nothing of ours), how they are rendered, and how a live one is asked."""
