"""What compression methods are measured against: plugins like the methods."""
