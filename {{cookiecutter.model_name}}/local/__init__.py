"""What helps while developing; nothing here goes into the image."""
