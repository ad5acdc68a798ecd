"""Reports: a page per comparison, and a page, pictures and a summary per study."""
