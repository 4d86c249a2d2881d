"""From a run to a page that a reviewer can check."""
