"""What `TeacherCache` is made of."""
