"""Weights become networks: files on disk to tensors and a configuration, and the networks written over them.

What it does: finds and fetches models, reads their files, cuts text into tokens and renders chats, says each family's
network and runs it on a batch. What it does not: schedule, sample, or keep anything between steps but the cache it is
given.

Files, in the order a model goes through them:
- where it is: catalogue (names), store (what is here), pull and pull_* (disk, hub, wheel), digest (hashes), describe;
- its bytes: mapped (files and JSON), gguf and safetensors (containers), tensors (one tensor in its storage type);
- what it is: config (ModelConfig), its readers gguf_config, huggingface_config and huggingface_rope, fields (typed
  access), names (tensor names and shapes), check, gguf_weights and huggingface (canonical weights), checkpoint (all);
- its words: tokenizer (tokenizer_gguf, tokenizer_folder, pretokenizers, byte_level, vocabulary, detokenizer), template
  (template_*), tools (tools_prompt, tool_parser, tool_json);
- its network: ops (the vocabulary), families (the sentences), rope, batch, lora, and two speakers: native_*, torch_*;
- for tests: forced (teacher forcing through a runner), tiny (a random model of any family).
"""
