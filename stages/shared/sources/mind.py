"""The layout of MIND's behaviors.tsv (Wu et al. 2020, https://msnews.github.io), which ingest reads as a log and retrieve as slates.

Five columns without a header, cut by tabs: impression id, user, time, history (news ids, cut by spaces, without times), impressions
("N1-1 N2-0": news id, 1 = clicked). The test set says "N1 N2", without clicks.
"""

LOG = "behaviors.tsv"
LOG_COLUMNS = 5
TIME = "%m/%d/%Y %I:%M:%S %p"  # "11/15/2019 10:22:32 AM"
CLICKED, PASSED = "1", "0"  # behind the last hyphen of a shown item; ids may have hyphens themselves
