"""`tongbao db`: backups and going back, new versions, months of the journal, many machines."""
