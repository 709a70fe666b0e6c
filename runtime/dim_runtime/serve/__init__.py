"""A server for mattes: REST, a page to draw trimaps on, one network in memory. Needs the extra `serve`."""
