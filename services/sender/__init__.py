"""The service that takes broadcasts, keeps their state and answers for them."""
