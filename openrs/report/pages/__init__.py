"""The report as a document, a page, Markdown and plots."""
