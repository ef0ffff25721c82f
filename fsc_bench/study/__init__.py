"""Studies: experiments on trained models and on training itself; each is a command of its own."""
