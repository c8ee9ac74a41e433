"""How tokens bear damage: on the tokens, on the picture, and where a token acts."""
