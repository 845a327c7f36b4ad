"""Data: EmojiScenes and its textures."""
