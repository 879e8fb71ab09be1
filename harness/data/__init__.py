"""Text and tokens: where they come from, how they are split, tokenised, stored and handed out."""
