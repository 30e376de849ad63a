"""What a replica set promises, told with processes as its users start them."""
