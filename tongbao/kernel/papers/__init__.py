"""Writers of papers for people: tables for spreadsheets, and pages."""
