"""What do the recipes cost compared with TRL's own scripts?"""
