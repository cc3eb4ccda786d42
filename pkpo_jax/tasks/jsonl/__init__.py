"""Problems of the user's own files."""
