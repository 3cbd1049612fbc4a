"""Tables of facts about models and GPUs, each with its source in the head of its file."""
