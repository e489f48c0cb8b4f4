"""One page of all stored results for a browser: data prepared in Python, drawn by page.html, .css and .js."""
