"""Every inbox and every live stream: what arrived for whom, what they did with it, and who sees it as it happens."""
