"""A service that keeps the world's airports in DynamoDB, and the SQL table they are to move to."""
