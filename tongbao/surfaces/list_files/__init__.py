"""The lists of the console as files for spreadsheets."""
