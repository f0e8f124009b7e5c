"""What goes beyond the article: controls, and networks that learn the transformation. Shared by the experiments."""
