"""The report of a training, artifacts/report.html: is the model good enough, and where does it go wrong?"""

from training.report.page import page as page
