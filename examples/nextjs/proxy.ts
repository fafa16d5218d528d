// Makes Clerk's session known to the server's side of the app.
import { clerkMiddleware } from '@clerk/nextjs/server';

export default clerkMiddleware();

export const config = { matcher: ['/((?!_next|.*\\..*).*)'] };
