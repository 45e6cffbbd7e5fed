"""The parts of the crash loop: load from many clients, a killer, and the comparing of three ledgers."""
