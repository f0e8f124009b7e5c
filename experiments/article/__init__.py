"""What belongs to the article: its published numbers, its claims, and analyses of its numbers."""
