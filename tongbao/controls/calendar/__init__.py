"""The calendar: which days banks work, as dated rows with the instrument that says so."""
