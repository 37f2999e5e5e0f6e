"""What is worth knowing of an instance: read and put into words for admin pages and management commands."""
