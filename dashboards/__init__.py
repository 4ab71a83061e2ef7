"""Floor 4: what people look at. Enters: a node's status, the store's answers. Leaves: pages, terminal views, panels."""
