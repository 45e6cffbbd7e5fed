"""The domain: accounts, OpenRouter keys, cooldowns, clients, the ledger and the lane that writes it."""
