`python -m study`, in the source tree, measures ten models of a server on your own machine, from one connection at a time to
evproxy, and predicts each number first; `python -m study live` shows evproxy's loop turn in a browser. The new page
[Which model should I choose?](docs/which-model.md) has the conclusions, for Apache, nginx and gunicorn too.
