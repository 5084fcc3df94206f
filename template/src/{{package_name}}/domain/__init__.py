"""What this project is about: its data contract, its features, its prediction problem. Yours.

An update of the template never touches this folder.
"""
