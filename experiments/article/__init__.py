"""The article: its published numbers, its claims, and analyses of both against the committed runs."""
