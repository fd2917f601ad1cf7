"""The project itself: its layers, documents, packages, and the ground that tests stand on."""
