"""Go inside a stage that diverges: which module is the first to differ?"""
