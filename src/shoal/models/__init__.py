"""Weights become networks: files on disk to tensors and a configuration, and the networks written over them.

What it does: finds and fetches models, reads their files, cuts text into tokens and renders chats, says each family's
network and runs it on a batch. What it does not: schedule, sample, or keep anything between steps but the cache it is given.

Files, in the order a model goes through them:
- where it is: catalogue (names), store (what is on this machine), pull and its sources;
- its bytes: mapped (files and JSON), gguf and safetensors (containers), tensors (a tensor in its storage type);
- what it is: config (ModelConfig), gguf_config and huggingface_config, huggingface_rope (readers of it), fields (typed
  access), names (tensor names and shapes), check, gguf_weights and huggingface (canonical weights), checkpoint (all of it);
- its words: tokenizer and its parts, chat template;
- its network: ops (the vocabulary), families (the sentences), rope, batch, lora, and the speakers native and torch.
"""
