"""The dispatcher: turns a due broadcast into deliveries, and answers for each of them."""
