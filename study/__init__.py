"""The study: what each model of a server costs and loses, measured on the reader's own machine."""
