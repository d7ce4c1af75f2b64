"""What builds the course from its pages; no part of the library, nor of its wheel."""
