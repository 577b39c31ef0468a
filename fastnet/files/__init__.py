"""Files: safetensors with a description in their metadata, written so that no crash can damage them."""
